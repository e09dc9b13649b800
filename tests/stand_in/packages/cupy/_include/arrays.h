// The arrays and indexers that CuPy passes to a kernel, with checks of every raw index.
#pragma once

template <class T> static T &_outside() {
    static T element;
    _status = ILLEGAL_ADDRESS;
    return element;
}

template <class T, int n, bool contiguous, bool index_32_bits> class CArray {
    T *data_;
    ptrdiff_t size_, shape_[n], strides_[n];

public:
    static const int ndim = n;
    ptrdiff_t size() const { return size_; }
    const ptrdiff_t *shape() const { return shape_; }
    const ptrdiff_t *strides() const { return strides_; }
    const T &operator[](ptrdiff_t i) const { return const_cast<CArray &>(*this)[i]; }
    template <class Int> const T &operator[](const Int (&index)[n]) const {
        return const_cast<CArray &>(*this)[index];
    }
    T &operator[](ptrdiff_t i) {
        if (i < 0 || i >= size_) return _outside<T>();
        if (contiguous) return data_[i];
        ptrdiff_t offset = 0;
        for (int axis = n - 1; axis > 0; axis--) {
            offset += i % shape_[axis] * strides_[axis];
            i /= shape_[axis];
        }
        return *(T *)((char *)data_ + offset + i * strides_[0]);
    }
    template <class Int> T &operator[](const Int (&index)[n]) {
        ptrdiff_t offset = 0;
        for (int axis = 0; axis < n; axis++) {
            if (index[axis] < 0 || (ptrdiff_t)index[axis] >= shape_[axis]) return _outside<T>();
            offset += index[axis] * strides_[axis];
        }
        return *(T *)((char *)data_ + offset);
    }
};

template <class T, bool contiguous, bool index_32_bits>
class CArray<T, 0, contiguous, index_32_bits> {
    T *data_;
    ptrdiff_t size_;

public:
    static const int ndim = 0;
    ptrdiff_t size() const { return size_; }
    template <class Index> T &operator[](const Index &) { return *data_; }
    template <class Index> const T &operator[](const Index &) const { return *data_; }
};

template <int n, bool index_32_bits> class CIndexer {
    ptrdiff_t size_, shape_[n], index_[n];

public:
    static const int ndim = n;
    typedef ptrdiff_t Index[n];
    ptrdiff_t size() const { return size_; }
    const Index &get() const { return index_; }
    void set(ptrdiff_t i) {
        for (int axis = n - 1; axis > 0; axis--) {
            index_[axis] = i % shape_[axis];
            i /= shape_[axis];
        }
        index_[0] = i;
    }
};

template <bool index_32_bits> class CIndexer<0, index_32_bits> {
    ptrdiff_t size_;

public:
    static const int ndim = 0;
    ptrdiff_t size() const { return size_; }
    const ptrdiff_t *get() const { return nullptr; }
    void set(ptrdiff_t) {}
};
