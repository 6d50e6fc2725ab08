"""The five networks of the suite ``models``, in each library as its own documentation writes them.

Each module has ``contestant(name, x, y)``, which returns ``run(steps)``: it trains the network of
that name with Adam on batches of the rows, and waits for the result. What a library does once is
done by a first call.
"""
