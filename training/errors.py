"""The errors that a command reports in one message, without a traceback."""


class TrainingError(Exception):
    """A command cannot be carried out; the message says why and what to do."""


class InvalidDataError(TrainingError):
    """The training data cannot be used."""


class ModelNotServableError(TrainingError):
    """The service could not serve the fitted model."""


class NotExportableError(TrainingError):
    """The fitted model has no export to ONNX that predicts the same."""


class InvalidLogError(TrainingError):
    """The prediction log cannot be used."""


class InvalidOutcomesError(TrainingError):
    """The file of outcomes cannot be used."""
