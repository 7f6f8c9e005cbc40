"""The LLVM back end: kernel IR to LLVM IR text to object code."""
