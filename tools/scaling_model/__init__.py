"""A cost model of one engine step on several GPUs; tools/scaling.py prints what it predicts."""
