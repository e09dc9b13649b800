"""The kinds of columns, for tables in files and for data frames.

`kinds` has a row for each kind, `values` finds the kind of values in memory, `texts` parses text as
another kind, and `categories` has the rules for text. The data sets read files with them, and the
estimators learn from them how to encode each column. A new kind is a row of `kinds.KINDS`, a branch
of `values.read_values`, and a class and a branch of `learn_column` in
`mlp_xp.estimators.tables.kinds`.
"""
