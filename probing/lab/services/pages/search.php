<?php
// Products by a word of their names.
require 'page.php';
head('Search');
$word = $_GET['q'] ?? '';
$found = rows(shop(), 'SELECT id, name, price FROM products WHERE name LIKE ? ORDER BY name', ['%' . $word . '%']);
if ($found) {
    products($found);
} else {
    echo "<p>Nothing found.</p>\n";
}
foot();
