"""The sample shop: a small SQLite database for trying things out. The same rows every time."""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from typing import Final

_SCHEMA: Final = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL, since DATE NOT NULL);
CREATE TABLE products (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, category TEXT NOT NULL, price REAL NOT NULL
);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers (id),
    product_id INTEGER NOT NULL REFERENCES products (id),
    quantity INTEGER NOT NULL,
    total REAL NOT NULL,
    status TEXT NOT NULL,
    ordered_on DATE NOT NULL
);
"""
_PEOPLE: Final = (
    "Ada",
    "Bruno",
    "Chiara",
    "Dmitri",
    "Elif",
    "Farid",
    "Grace",
    "Hanna",
    "Ivo",
    "Jun",
    "Kofi",
    "Lena",
)
_CITIES: Final = ("Berlin", "Lisbon", "Oslo", "Vienna")
_PRODUCTS: Final = (
    ("Kettle", "kitchen", 34.5),
    ("Teapot", "kitchen", 22.0),
    ("Lamp", "home", 48.0),
    ("Blanket", "home", 59.9),
    ("Notebook", "office", 6.5),
    ("Pen set", "office", 12.0),
    ("Backpack", "travel", 79.0),
    ("Umbrella", "travel", 19.9),
)
_STATUSES: Final = ("paid", "paid", "shipped", "open", "returned")
_ORDERS: Final = 48


@lru_cache(maxsize=1)
def shop() -> bytes:
    """Return the shop as the bytes of a SQLite database: 12 customers, 8 products, 48 orders of 2025."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(_SCHEMA)
        connection.executemany(
            "INSERT INTO customers VALUES (?, ?, ?, ?)",
            [(i + 1, name, _CITIES[i % 4], f"202{i % 5}-0{i % 9 + 1}-15") for i, name in enumerate(_PEOPLE)],
        )
        connection.executemany(
            "INSERT INTO products VALUES (?, ?, ?, ?)",
            [(i + 1, *product) for i, product in enumerate(_PRODUCTS)],
        )
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)", [_order(i) for i in range(_ORDERS)])
        connection.commit()
        return connection.serialize()
    finally:
        connection.close()


def _order(index: int) -> tuple[int, int, int, int, float, str, str]:
    customer, product, quantity = index * 7 % 12 + 1, index * 5 % 8 + 1, index % 3 + 1
    total = round(_PRODUCTS[product - 1][2] * quantity, 2)
    return (
        index + 1,
        customer,
        product,
        quantity,
        total,
        _STATUSES[index % 5],
        f"2025-{index // 4 + 1:02}-{index % 28 + 1:02}",
    )
