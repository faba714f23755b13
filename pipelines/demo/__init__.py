"""A web page to try every task on."""
