def f(a, b):
    a += 2
    for i in range(2):
        b -= i
    if a > b:
        a -= b
    return a
