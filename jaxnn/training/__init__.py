"""Training: ``fit`` and what it is made of.

Reading order: ``train_step`` (one step), ``compiled_loops`` (many steps in one call), ``feeds`` (what the calls
work on), ``loop`` (one call after another), ``hooks`` (what happens in between), ``fit``.
"""
