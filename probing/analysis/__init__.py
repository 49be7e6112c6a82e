"""What labelled scores say of a detector.

Belongs here: statistics over scores and labels. Does not: scoring, or reading files.

roc.py   area under the ROC curve, true positives at a rate of false ones, with bootstrap intervals over units
"""
