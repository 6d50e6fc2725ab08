"""Training: ``fit`` and the modules that it is built from.

A good order to read them is ``train_step`` (one step), ``compiled_loops`` (many steps in one call),
``feeds`` (the data of each call), ``loop`` (one call after another), ``hooks`` (what happens
between the calls), and ``fit``.
"""
