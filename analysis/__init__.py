"""From label images and cell tables to scores, tests and a report.

matching     one-to-one pairs of cells by IoU
scores       dataset IoU, F1, PQ, AP with clustered intervals
statistics   paired, clustered and independent comparisons
fidelity     trait fidelity error: what a segmentation does to a measurement
samples      frames and cells of several methods, read from a run or from loose files
comparisons  the tests of every trait and pair, in rows
figures      pictures of a report
report       one HTML file
compare      the command: `python -m analysis.compare RUN`
"""
