"""``python -m gearman_sync.migrate PATH...``: what has to change in a program that moves here.

It reads the source of programs that were written for python-gearman, gearman3, pygearman,
python3-gearman, py3gearman, gear or aiogear, and lists what is different here, with the line and
what to do about it. Nothing of the program is run or changed. docs/howto/migrating.md explains the
rules.

`_rules` has them as a table, `_families` what the libraries are called and what they have,
`_sources` finds the files, `_kinds` finds out what a name stands for, `_checks` and
`_python_gearman` look at the code, and `_report` prints.
"""
