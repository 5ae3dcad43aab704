"""Small mistakes that the tests must find: a table of them, and what tries them one by one."""
