"""Run a command of the bundle in the current folder, which train.py describes."""

from train import PROJECT
from training import main

main(PROJECT)
