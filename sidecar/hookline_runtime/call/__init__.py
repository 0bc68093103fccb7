"""One hook call: what the proxy sent, which plugins it is for, and what a guest's bytes mean. Pure.

What belongs here: JSON in and out, and rules over it. What does not: who answers, and in which order.
"""
