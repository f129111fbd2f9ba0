"""``python -m gearman_sync.migrate PATH...``: lists the changes that a program needs to move here.

It reads the source of programs for python-gearman and other libraries. Nothing is run or changed.
`_rules` and `_names` are tables, `_sources` finds the files, `_kinds` resolves names, `_checks`
applies the rules to a file and `_program` to all files, and `_report` prints the findings.
"""
