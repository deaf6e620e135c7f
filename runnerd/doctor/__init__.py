"""What is wrong with this host, and what to do about it: looked at by the daemon when somebody asks.

`Doctor` takes every look at once; what there is to look at is a module a subject.
"""
