"""Who may do what: tokens, principals, and how many requests a tenant may make."""
