"""Run the steps of ``main``, reuse steps of unfinished calls, and summarize the results."""
