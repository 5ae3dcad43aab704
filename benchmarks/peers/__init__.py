"""The services compared. Those written for the comparison are programs in this folder."""
