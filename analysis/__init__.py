"""From label images and cell tables to scores, tests and a report.

matching     one-to-one pairs of cells by IoU
scores       dataset IoU, F1, PQ, AP with clustered intervals
boundary     boundary F1, boundary IoU, Hausdorff distance of outlines
instances    splits, merges, missed and made-up cells; SEG, AJI
score        the command: `python -m analysis.score PRED TRUTH`
label_input  label images of any program, frame by frame
statistics   paired, clustered and independent comparisons
fidelity     trait fidelity error: what a segmentation does to a measurement
samples      frames and cells of several methods, read from a run
loose_files  the same from files of any program; cells_input: their tables
clusters     what errors repeat within: patients, wells, fields, tracks and frames
same_cells   cells two methods both found, side by side
comparisons  the tests of every trait and pair of methods, in rows
conditions   independent conditions, compared on replicates
agreement    every method against the truth, trait by trait
choice       which method to use for which trait, and what that costs
record       what a search left in its run folder
results      all of it in one place
verdict      the first words of the report and its warnings
contents     its chapters in order
answer       the table under the verdict
chapters     scores and traits; against_truth: agreement; differences: the tests in tables
search_chapters, early_stopping, decoding    what the search did
matched      true cells beside the cells found for them; slope: of a line through clustered points
density      errors where cells touch; rounding: are cells made rounder; conventions: unbiased and TrackMate's measures
worst_cells  where each method went most wrong
examples     pictures of cells and of network outputs
definitions  what the numbers mean, and what made them; limits: what they cannot tell
methods_text a passage for a paper; references: what it cites
figures      line figures as SVG; pixels: pictures of pixels as PNG
report       sections to one HTML file (page.html, report.css, report.js)
compare      the command: `python -m analysis.compare RUN`
"""
