"""Tenantbase side by side with its peers, in one run on one machine. See README.md.

run         the command line: which rounds, which work, what comes out
peers/      the services compared, and how each is started
dialect     how a request is spelled for each of them, and what a right answer is
work        what is asked of them, on which data
throughput  closed loop, by wrk         latency  open loop, at a fixed rate
memory      what a server process holds  growth   a million entries beside a thousand
against     two commits side by side, with a verdict
report      from the results to the table, the plot and the section of README.md
"""
