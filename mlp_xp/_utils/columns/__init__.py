"""The kinds of table columns, in files and in data frames.

`kinds` defines the kinds, `values` infers the kind of values in memory, `texts` parses text as
another kind, and `categories` defines the rules for text. Data sets use them to read files, and
estimators to decide how to encode each column. To add a kind, add a row to `kinds.KINDS`, a branch
to `values.read_values`, and a class and a branch to `learn_column` in
`mlp_xp.estimators.tables.kinds`.
"""
