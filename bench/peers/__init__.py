"""The peers, each written as its documentation recommends, with its best options."""
