"""The store's engines. They own files and SQL; they offer `martlet.store.engine.Engine`; they know no transactions.

Only the composition root names one of them (by import string); everybody else takes what it is given.
"""
