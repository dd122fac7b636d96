"""The first run at the paper's scale: the shortest path that compares with published numbers, and a report to send.

`machine` looks at the machine before anything is loaded, `steps` measures, `judging` compares with what is published,
`causes` says why something failed, `kit` runs all of it and resumes, `report` writes one page and one JSON.
"""
