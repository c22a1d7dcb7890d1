"""The same job by other libraries: one module each, with what a user of it would write.

``scales`` counts the images that one network is right on, at each factor that its hidden preactivations are multiplied
by. Where a library can do so for several networks at once, ``ensemble`` does. A network is (hidden weight [H, D], bias
[H], head weight [C, H], bias [C]).
"""
