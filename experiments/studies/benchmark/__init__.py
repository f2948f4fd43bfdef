"""Parts of `experiments.benchmark`: cases to time, their PyTorch sides, the roofline, the page."""
