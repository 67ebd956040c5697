"""From stored network outputs to cells: instances, shape measures, tracks and the files people open.

Targets (``encode(labels)`` / ``decode(prediction)``): ``two_class``, ``three_class``, ``star``, named in ``methods``;
``classical`` is the baseline without learning. Measures: ``morphology`` (unbiased), ``trackmate`` (exactly what
TrackMate prints). Over time: ``track``. Files: ``prediction``, ``predictions`` (in), ``label_store``, ``export`` (out),
on ``frame_store``. The stage itself: ``python -m postprocess.run``.
"""
