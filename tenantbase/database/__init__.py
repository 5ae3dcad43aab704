"""The service: every operation on entries, validated, scoped and limited. Ports call this alone."""

from tenantbase.database.import_batch import ImportBatch
from tenantbase.database.limits import MAX_PAGE_ENTRIES, Limits
from tenantbase.database.reader import Entries, Reader
from tenantbase.database.service import Database
from tenantbase.database.watch import Changes

__all__ = ["MAX_PAGE_ENTRIES", "Changes", "Database", "Entries", "ImportBatch", "Limits", "Reader"]
