<?php
// One product, and how to order it.
require 'page.php';
$id = $_GET['id'] ?? '1';
$found = rows(shop(), 'SELECT id, name, price, stock, about FROM products WHERE id = ?', [$id]);
if ($found) {
    [$number, $name, $price, $stock, $about] = $found[0];
    head(text($name));
    echo '<p class="price">', text($price), '</p><p>In stock: ', text($stock), "</p>\n<p>", text($about), "</p>\n",
        '<form action="order.php" method="post"><input type="hidden" name="product" value="', text($number),
        "\"><input name=\"pieces\" value=\"1\"><button>Order</button></form>\n";
} else {
    head('No such product');
}
foot();
