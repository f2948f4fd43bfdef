"""The embedded default: scikit-learn's handwritten digits, 8x8 pixels, no network needed."""

import numpy as np

from imp_rg.data.arrays import Splits

SPLIT_SEED = 0
"""`random_state` of the one stratified 80/20 split that every run uses."""


def load_digits() -> Splits:
    """Splits the 1797 digits into 1437 for training and 360 for testing, stratified by class.

    Pixels keep their own units, integers 0 to 16.

    References:
      Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998.
    """
    from sklearn import datasets, model_selection

    x, y = map(np.asarray, datasets.load_digits(return_X_y=True))
    parts = model_selection.train_test_split(
        x.reshape(-1, 8, 8, 1).astype(np.uint8),
        y.astype(np.int32),
        test_size=0.2,
        stratify=y,
        random_state=SPLIT_SEED,
    )
    x_train, x_test, y_train, y_test = map(np.asarray, parts)
    return Splits(x_train, y_train, x_test, y_test, num_classes=10)
