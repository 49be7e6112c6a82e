<?php
// Products, a page at a time.
require 'page.php';
$page = max(0, (int) ($_GET['page'] ?? 0));
head('Our products');
products(rows(
    shop(),
    'SELECT id, name, price FROM products WHERE id > ? AND id <= ? ORDER BY id',
    [(string) ($page * 24), (string) ($page * 24 + 24)]
));
echo '<p><a href="index.php?page=', $page + 1, "\">More</a></p>\n";
foot();
