"""The provider validation programme: what a store does, measured, and the tier that it comes to.

`programme.validate` runs the measures of the other modules in a throw-away prefix. Each measure
says what it saw; `grading` says what that means, so that the rules stand in one place.
"""
