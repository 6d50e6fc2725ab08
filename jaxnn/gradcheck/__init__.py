"""Is a hand-derived gradient right, and if not, what went wrong?

``certify`` checks a gradient, ``diagnose`` names the mistake in a wrong one, and ``mutation`` tests
both.
"""
