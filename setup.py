"""What the package is and needs; settings of the tools stand in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="imp-rg",
    version="0.1.0",
    description="Iterative magnitude pruning as a renormalization group scheme, in JAX",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["imp_rg", "imp_rg.*", "experiments", "experiments.*"]),
    package_data={"imp_rg": ["py.typed", "report/*.j2", "report/*.css"]},
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "numpy>=2.0",
        "scipy>=1.14",
        "jaxtyping>=0.3",
        "safetensors>=0.5",
        "filelock>=3.30",
        "pandas>=2.2",
        "scikit-learn>=1.5",
        "matplotlib>=3.9",
        "pillow>=11",
        "jinja2>=3.1",
        "tyro>=1.0",
        "rich>=13.9",
        # Reading prepared sets needs no TensorFlow; preparing named ones does, see the extra.
        "tensorflow-datasets>=4.9.10",
        "array-record>=0.8",
    ],
    extras_require={
        "tfds": ["tensorflow>=2.20"],
        # Text tasks; the hub is asked only for names that are no path.
        "text": ["tokenizers>=0.20", "huggingface_hub>=0.25"],
        # Reading PyTorch files; what else is read needs no extra.
        "torch": ["torch>=2.6"],
        # Folders of images too large for memory.
        "stream": ["grain>=0.2.12"],
        # Many runs on Slurm or here.
        "sweep": ["submitit>=1.5"],
        "notebook": ["nbclient>=0.10", "ipykernel>=6"],
        "test": [
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "grain>=0.2.12",
            "submitit>=1.5",
            "hypothesis>=6",
            "beartype>=0.22",
            "ruff>=0.14",
            "pyright>=1.1.400",
        ],
    },
)
