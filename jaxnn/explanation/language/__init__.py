"""The language of formulas: read, evaluated, written out entry by entry, and printed."""
