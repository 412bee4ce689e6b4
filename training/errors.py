"""The errors that a command reports in one message, without a traceback."""


class TrainingError(Exception):
    """A command failed; the message says why, and what to do."""


class InvalidDataError(TrainingError):
    """An input file, or a path for the output, can't be used."""


class ModelNotServableError(TrainingError):
    """The service could not serve the fitted model."""


class NotExportableError(TrainingError):
    """There is no ONNX export of the fitted model that makes the same predictions."""


class InvalidLogError(TrainingError):
    """The prediction log can't be used."""


class InvalidOutcomesError(TrainingError):
    """The file of outcomes can't be used."""
