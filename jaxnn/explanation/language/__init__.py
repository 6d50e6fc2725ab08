"""The language of formulas: how they are read, evaluated, written out and printed."""
