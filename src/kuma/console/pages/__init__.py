"""Answers the requests of browsers: reads what a page is about, and has it shown. No judgement of its own."""
