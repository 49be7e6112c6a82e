<?php
// The visitor's own page.
require 'page.php';
$name = visitor();
if ($name === '') {
    header('Location: login.php', true, 302);
    exit;
}
head('Your account');
echo '<p>Welcome, ', text($name), ".</p>\n<table class=\"orders\">\n";
$orders = rows(
    shop(),
    'SELECT orders.id, products.name, orders.pieces FROM orders JOIN products ON products.id = orders.product'
        . ' WHERE orders.buyer = ? ORDER BY orders.id DESC LIMIT 10',
    [$name]
);
foreach ($orders as [$number, $product, $pieces]) {
    echo '<tr><td>', text($number), '</td><td>', text($product), '</td><td>', text($pieces), "</td></tr>\n";
}
echo "</table>\n";
foot();
