"""Mutation tests: a table of small mistakes that the tests must find, and a runner for them."""
