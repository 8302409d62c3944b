"""One command: configuration, output folder, execution and the command line.

Import from the files themselves (``toolkit.study.config``, ``toolkit.study.runner``): this
face stays empty so that ``--help`` and a refused option answer at once.
"""
