"""Attention whose positions decompose into rows and columns: any map size, linear memory."""
