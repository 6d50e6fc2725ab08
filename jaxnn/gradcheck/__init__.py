"""Is a hand-derived gradient right, and if not, what went wrong?

``certify`` proves a gradient, ``diagnose`` names the mistake in a wrong one, ``mutation`` tests both.
"""
