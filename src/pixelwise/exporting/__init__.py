"""Export of models: conversion to files for other programs, int8 quantisation, and the proof that the masks are the same."""
