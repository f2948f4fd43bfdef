"""Checkpoints made elsewhere: files to named arrays, and from there to levels of a flow."""

from imp_rg.foreign.variables import load_variables as load_variables
