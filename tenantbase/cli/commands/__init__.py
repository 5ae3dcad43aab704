"""The commands of ``tenantbase``; ``main`` lists them."""
