"""Honest answers from multimodal recordings of people, with gradient boosting.

The rooms follow one another as the data flows: :mod:`toolkit.data`, :mod:`toolkit.pooling`,
:mod:`toolkit.models`, :mod:`toolkit.validation`, :mod:`toolkit.report`, :mod:`toolkit.study`.
Nothing heavy is imported here, so that the command line answers at once.
"""

__version__ = "0.1.0"
