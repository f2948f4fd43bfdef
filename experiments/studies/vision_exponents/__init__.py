"""The exponent of the error of vision tickets, beside the paper's."""
